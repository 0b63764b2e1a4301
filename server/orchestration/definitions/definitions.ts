import type { Principal } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import type { Page, PageRequest } from "../runs.ts";

/** Workflows or agents, kept in versions under their names. Errors are DomainErrors. */
export interface Definitions<T extends Workflow | Agent> {
  /**
   * Keeps it as the next version unless it is what it was. Throws ABORTED when `etag` is not that of the newest version;
   * empty: not checked.
   *
   * @param by who makes the version, and on whose behalf its schedules start runs
   */
  put(
    definition: T,
    by: Principal,
    etag: string,
  ): Promise<{ readonly definition: T; readonly changed: boolean }>;
  /** Version 0 is the newest. Throws NOT_FOUND, with names or versions that there are. */
  get(name: string, version: number): Promise<T>;
  /** The newest of each, by name; with a name, its versions, the newest first. */
  list(name: string, page: PageRequest): Promise<Page<T>>;
  /** Deleting what is not there changes nothing. */
  delete(name: string): Promise<void>;
}

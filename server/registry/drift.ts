import { createByteLru } from "@toolplane/framework/policies";
import type { SchemaChange } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Logger } from "pino";
import { diffTools } from "../schema/index.ts";
import type { CatalogueService } from "./catalogue.ts";
import { toolName } from "./messages.ts";
import { describeKey } from "./service-key.ts";
import type { Store } from "./store.ts";
import { decodeToolSet } from "./tool-set.ts";

/** So many breaking changes are logged one by one. */
const LOGGED = 20;

/** Says how what a service offers differs from what it offered before. */
export interface Drift {
  /** Nothing when the service offered no other tools before. What is found is logged too. */
  compare(
    service: CatalogueService | undefined,
    previousToolSet: string | undefined,
  ): Promise<readonly SchemaChange[]>;
}

export function createDrift(store: Pick<Store, "toolSets">, logger: Logger): Drift {
  return {
    async compare(service, previousToolSet) {
      if (!service?.tools || previousToolSet === undefined) {
        return [];
      }
      for await (const { digest, bytes } of store.toolSets([previousToolSet])) {
        const previous = decodeToolSet(digest, bytes, createByteLru({ maxBytes: 0 }));
        const changes = diffTools(previous.tools(), service.tools.tools());
        for (const change of changes) {
          change.tool = toolName(service, change.tool);
        }
        const breaking = changes.filter((change) => change.breaking);
        if (breaking.length > 0) {
          logger.warn(
            {
              service: describeKey(service),
              changes: breaking
                .slice(0, LOGGED)
                .map(({ tool, path, message }) => `${tool} ${path}: ${message}`),
            },
            "the service's tools have changed in ways that can break callers",
          );
        } else if (changes.length > 0) {
          logger.info(
            { service: describeKey(service), changes: changes.length },
            "the service's tools have changed",
          );
        }
        return changes;
      }
      return [];
    },
  };
}

import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type ListHealthChecksRequest,
  type ServiceFilter,
  ServiceFilterSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import pLimit from "p-limit";
import { invalidPageToken, pageTokens } from "../../page-token.ts";
import type { Catalogue } from "../catalogue.ts";
import { servicePredicate } from "../filter.ts";
import { pageSizeOf } from "../listings.ts";
import type { Checker } from "./checker.ts";
import type { HealthHistoryStore, HealthRecord } from "./history-store.ts";

/** How many checks one request does at once. */
const CONCURRENCY = 32;

/** Which past checks are wanted. */
export type HealthChecksRequest = Pick<
  ListHealthChecksRequest,
  "filter" | "instanceId" | "pageSize" | "pageToken"
> &
  Partial<Pick<ListHealthChecksRequest, "startTime" | "endTime">>;

/** Health checks on demand, and those of the past. */
export interface HealthChecks {
  /** Checks the instances of all services that match, now. Ordered by service and instance. */
  check(filter: ServiceFilter | undefined, signal: AbortSignal): Promise<HealthRecord[]>;
  /** Past checks, newest first. */
  list(
    request: HealthChecksRequest,
  ): Promise<{ readonly items: HealthRecord[]; readonly nextPageToken: string }>;
}

export function createHealthChecks(
  catalogue: Catalogue,
  checker: Checker,
  history: HealthHistoryStore,
): HealthChecks {
  return {
    async check(filter, signal) {
      const limit = pLimit(CONCURRENCY);
      const checks = catalogue
        .services()
        .filter(servicePredicate(filter))
        .flatMap((service) =>
          service.instances.map((instance) => limit(() => checker.check(service, instance, signal))),
        );
      const records = await Promise.all(checks);
      // What was found is visible to whoever asks next.
      await checker.flush();
      return records.filter((record) => record !== undefined);
    },

    async list({ filter, instanceId, startTime, endTime, pageSize, pageToken }) {
      const tokens = pageTokens(`health-checks ${instanceId}`, 1, ServiceFilterSchema, filter);
      const [before] = tokens.read(pageToken) ?? [];
      if (before !== undefined && !/^\d{1,18}$/.test(before)) {
        throw invalidPageToken();
      }
      const wanted = pageSizeOf(pageSize);
      const tagged = filter && filter.tags.length > 0;
      const rows = await history.list(
        {
          name: filter?.name,
          environment: filter?.environment,
          version: filter?.version,
          status: filter?.health,
          instanceId,
          start: startTime && timestampDate(startTime),
          end: endTime && timestampDate(endTime),
          // Tags belong to services that are registered now.
          services: tagged
            ? catalogue
                .services()
                .filter((service) => filter.tags.every((tag) => service.spec.tags.includes(tag)))
            : undefined,
        },
        wanted + 1,
        before,
      );
      const items = rows.slice(0, wanted);
      const last = items.at(-1);
      return { items, nextPageToken: last && rows.length > wanted ? tokens.write([last.id]) : "" };
    },
  };
}

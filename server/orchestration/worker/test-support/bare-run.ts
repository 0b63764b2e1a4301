import { create } from "@bufbuild/protobuf";
import { UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { RunSourceSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import type { ClaimedRun, Journal } from "../../engine/journal.ts";

/** A run of which nothing but its id matters. */
export function bareRun(id: string): ClaimedRun {
  return {
    id,
    title: id,
    principal: { id: "user:ada", role: "caller" },
    depth: 0,
    deadline: Number.MAX_SAFE_INTEGER,
    number: 1,
    epoch: 1,
    source: create(RunSourceSchema),
    agents: [],
    createTime: 0,
    startTime: 0,
    takeovers: 0,
    isNew: true,
    cancelled: undefined,
    steps: new Map(),
    usage: create(UsageSchema),
    retryOf: "",
  };
}

/** For engines that write nothing down. */
export const noJournal: Journal = {
  record: async () => undefined,
  setUsage: () => undefined,
  finish: async () => undefined,
  park: async () => true,
  release: async () => undefined,
  answers: async () => new Map(),
};

import type { Client } from "@connectrpc/connect";
import type { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type { Stats } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { toDuration } from "../tool-calls.ts";
import { type ResumeOptions, resumingStream } from "./resuming-stream.ts";

export interface WatchStatsOptions extends ResumeOptions {
  /** Time between two messages, in milliseconds, from 250 to 300,000. Default 2,000. */
  readonly intervalMs?: number | undefined;
}

/** How much later than expected a message may come before the connection counts as lost, in milliseconds. */
const GRACE_MS = 10_000;

/** What went on in the server, interval by interval; a lost connection is opened again. */
export async function* watchStats(
  admin: Client<typeof AdminService>,
  { intervalMs = 2_000, ...options }: WatchStatsOptions = {},
): AsyncGenerator<Stats, void, undefined> {
  const request = { interval: toDuration(intervalMs) };
  // A watch has no deadline; the transport's default is for calls.
  const open = (signal: AbortSignal) => admin.watchStats(request, { signal, timeoutMs: 0 });
  for await (const { stats } of resumingStream(open, { silenceMs: intervalMs + GRACE_MS, ...options })) {
    if (stats !== undefined) yield stats;
  }
}

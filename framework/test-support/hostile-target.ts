/**
 * A server in a process of its own, so that its memory can be measured apart from its attackers'. Told `measure`, it
 * answers with a `Measurement`; when the other side goes away it ends.
 */
import { createLogger } from "../logging.ts";
import { serve } from "../serving/serve.ts";
import { sampleImplementation } from "./sample-implementation.ts";
import { SampleService } from "./sample-service.ts";

export interface Measurement {
  /** Bytes in use after garbage collection: the heap and the buffers outside of it. */
  readonly memory: number;
  /** Messages that handlers of streams have produced so far. */
  readonly produced: number;
  /** Streams whose handler has not ended. */
  readonly streaming: number;
  /** Connections that are open. */
  readonly connections: number;
}

let produced = 0;
let streaming = 0;

const server = await serve({
  name: "target",
  register: false,
  logger: createLogger({ level: "warn", format: "json" }),
  limits: { headersTimeoutMs: 700, requestTimeoutMs: 700, idleTimeoutMs: 1_500 },
  drainTimeoutMs: 0,
  routes: (router) => {
    router.service(SampleService, {
      ...sampleImplementation,
      async *flood() {
        streaming += 1;
        try {
          for (;;) {
            produced += 1;
            yield { value: new Uint8Array(64 * 1024) };
          }
        } finally {
          streaming -= 1;
        }
      },
    });
  },
});

process.on("message", async () => {
  globalThis.gc?.();
  await new Promise(setImmediate);
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  const connections = process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
  process.send?.({ memory: heapUsed + external, produced, streaming, connections } satisfies Measurement);
});
process.on("disconnect", () => process.exit());
process.send?.({ url: server.url });

import { setTimeout } from "node:timers/promises";
import { createLogger, serve } from "@toolplane/framework";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import { createConcurrencyLimit } from "../framework/interceptors/concurrency-limit.ts";
import { createFixedConcurrency } from "../framework/policies/concurrency/fixed-concurrency.ts";

// The server of bench/concurrency.ts, in a process of its own: `limited` or `unlimited`. It can do 20 pieces of work at
// once, of 80 ms each; the others wait for their turn, whether or not anyone still waits for them.
const workers = createFixedConcurrency({ limit: 20, maxWaiting: 100_000 });
const concurrency = createConcurrencyLimit();
const limited = process.argv[2] === "limited";

const server = await serve({
  name: "text",
  routes: (router) =>
    router.service(TextService, {
      analyzeText: ({ text }) => workers.run(() => setTimeout(80, { words: text.length })),
    }),
  register: false,
  // Callers that give up at their deadline reset streams; that they do not run into this limit is not what is measured.
  limits: { resetBurst: 1_000_000, maxConcurrentStreams: 10_000, maxRequests: 10_000 },
  logger: createLogger({ level: "error" }),
  gates: limited ? [concurrency.gate] : [],
  interceptors: limited ? [concurrency.interceptor] : [],
});
process.send?.(server.url);
process.once("disconnect", () => process.exit());

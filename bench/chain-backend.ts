import { hash } from "node:crypto";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { type FinishedCall, serve, type Verifier } from "@toolplane/framework";
import { createServerChain } from "@toolplane/framework/interceptors";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";

// One of the servers of bench/chain.ts, in a process of its own. `bare`: a handler behind connect-node's own adapter;
// `serve`: behind serve() without more; `chain`: behind the whole chain, or without the parts that are named after it.
const [kind = "bare", ...without] = process.argv.slice(2);
const routes = (router: ConnectRouter) =>
  router.service(TextService, { analyzeText: ({ text }) => ({ words: text.length }) });

/** More than one process can ask for. */
const ample = { limit: 100_000_000, periodMs: 60_000, burst: 100_000_000 };

/** API keys as a server keeps them: by their hashes, in memory. */
function memoryKeys(): Verifier {
  const identities = new Map([[digest("bench-key"), { id: "key:bench", role: "caller" as const }]]);
  return {
    verify(token) {
      const identity = identities.get(digest(token));
      return identity === undefined ? { kind: "foreign" } : { kind: "accepted", identity };
    },
  };
}

function digest(secret: string): string {
  return hash("sha256", secret, "base64url");
}

/** What a server would export as metrics. */
function countCalls(): (call: FinishedCall) => void {
  const byMethod = new Map<string, { calls: number; failures: number; durationMs: number }>();
  return ({ method, code, durationMs }) => {
    const counts = byMethod.get(method) ?? { calls: 0, failures: 0, durationMs: 0 };
    counts.calls += 1;
    counts.failures += code === "ok" ? 0 : 1;
    counts.durationMs += durationMs;
    byMethod.set(method, counts);
  };
}

const has = (part: string) => kind === "chain" && !without.includes(part);

async function start(): Promise<string> {
  if (kind === "bare") {
    const server = createServer(connectNodeAdapter({ routes }));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    // A TCP server's address is always an object.
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
  const chain = createServerChain({
    authenticate: has("authenticate") ? { verifiers: [memoryKeys()] } : undefined,
    limits: has("limits") ? { global: ample, service: ample, caller: ample } : undefined,
    concurrency: has("shed") ? {} : false,
    deduplication: has("deduplicate") ? {} : false,
    breaker: has("breaker") ? {} : false,
  });
  const observe = has("observe") ? { onCall: countCalls() } : {};
  const { url } = await serve({
    name: "text",
    register: false,
    routes,
    ...observe,
    ...(kind === "chain" && chain),
  });
  return url;
}

const url = await start();
process.send?.({ url });
// How much of a processor the thread that serves has used so far, in microseconds.
process.on("message", () => {
  const { user, system } = process.threadCpuUsage();
  process.send?.({ cpuUs: user + system });
});
process.once("disconnect", () => process.exit());

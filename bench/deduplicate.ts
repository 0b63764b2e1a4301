import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { create } from "@bufbuild/protobuf";
import {
  type Client,
  createClient,
  createContextValues,
  type Interceptor,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { createLogger, serve } from "@toolplane/framework";
import { createDeduplication } from "@toolplane/framework/interceptors";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";
import type { BenchRow } from "./row.ts";

const CALLERS = 100;
const ROUNDS = 30;
const UNIQUE_CALLS = 50_000;

/** What 100 identical calls at once cost a backend and their callers, and what each call that is unlike others pays for that. */
export async function run(): Promise<BenchRow[]> {
  const backend = fork(fileURLToPath(new URL("./serving-backend.ts", import.meta.url)), ["serve"], {
    execArgv: ["--conditions=toolplane-source"],
  });
  try {
    const [url] = await once(backend, "message");
    const deduplication = createDeduplication({ shares: () => true });
    const shared = await measure(String(url), [deduplication.interceptor]);
    const unshared = await measure(String(url), []);
    const overheadUs = await overhead();
    return [
      {
        area: "deduplication",
        what: `backend calls for ${CALLERS} identical calls at once`,
        ours: shared.backendCalls.toFixed(0),
        peer: unshared.backendCalls.toFixed(0),
        peerName: "unshared",
        ratio: `${(unshared.backendCalls / shared.backendCalls).toFixed(0)}×`,
        target: "1",
        pass: shared.backendCalls === 1,
      },
      {
        area: "deduplication",
        what: `time until all ${CALLERS} have their answers, median`,
        ours: `${shared.medianMs.toFixed(1)} ms`,
        peer: `${unshared.medianMs.toFixed(1)} ms`,
        peerName: "unshared",
        ratio: `${(unshared.medianMs / shared.medianMs).toFixed(2)}×`,
        target: "–",
        pass: true,
      },
      {
        area: "deduplication",
        what: "added to a call that nobody shares",
        ours: `${overheadUs.toFixed(1)} µs`,
        peer: "–",
        peerName: "",
        ratio: "–",
        target: "< 50 µs",
        pass: overheadUs < 50,
      },
    ];
  } finally {
    backend.disconnect();
  }
}

/** A server that passes each call on to the backend. */
async function measure(
  backendUrl: string,
  interceptors: readonly Interceptor[],
): Promise<{ backendCalls: number; medianMs: number }> {
  const sessions: Http2SessionManager[] = [];
  const connect = (url: string): Client<typeof TextService> => {
    const sessionManager = new Http2SessionManager(url);
    sessions.push(sessionManager);
    return createClient(TextService, createGrpcTransport({ baseUrl: url, sessionManager }));
  };
  let backendCalls = 0;
  const backend = connect(backendUrl);
  const server = await serve({
    name: "front",
    interceptors,
    routes: (router) => {
      router.service(TextService, {
        analyzeText(request) {
          backendCalls++;
          return backend.analyzeText(request);
        },
      });
    },
    register: false,
    drainTimeoutMs: 0,
    logger: createLogger({ level: "error" }),
  });
  try {
    const client = connect(server.url);
    const times: number[] = [];
    // The first rounds warm up.
    for (let round = -5; round < ROUNDS; round++) {
      const begin = performance.now();
      await Promise.all(
        Array.from({ length: CALLERS }, () => client.analyzeText({ text: `To be or not to be ${round}` })),
      );
      if (round >= 0) {
        times.push(performance.now() - begin);
      } else {
        backendCalls = 0;
      }
    }
    return {
      backendCalls: backendCalls / ROUNDS,
      medianMs: times.sort((one, other) => one - other)[ROUNDS / 2] ?? Number.NaN,
    };
  } finally {
    for (const session of sessions) {
      session.abort();
    }
    await server.close();
  }
}

/** Microseconds that the interceptor adds to calls of which no two are alike, one after the other. */
async function overhead(): Promise<number> {
  const method = TextService.method.analyzeText;
  const response: UnaryResponse = {
    stream: false,
    service: TextService,
    method,
    header: new Headers(),
    trailer: new Headers(),
    message: create(method.output),
  };
  const bare = async () => response;
  const deduplicated = createDeduplication({ shares: () => true }).interceptor(bare);
  const { signal } = new AbortController();
  const run = async (call: (request: UnaryRequest) => Promise<unknown>) => {
    const begin = performance.now();
    for (let count = 0; count < UNIQUE_CALLS; count++) {
      await call({
        stream: false,
        service: TextService,
        method,
        requestMethod: "POST",
        url: "http://127.0.0.1/",
        signal,
        header: new Headers(),
        contextValues: createContextValues(),
        message: create(method.input, { text: `To be or not to be ${count}` }),
      });
    }
    return ((performance.now() - begin) / UNIQUE_CALLS) * 1_000;
  };
  await run(deduplicated);
  return (await run(deduplicated)) - (await run(bare));
}

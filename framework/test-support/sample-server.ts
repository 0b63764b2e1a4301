import type { ServiceImpl } from "@connectrpc/connect";
import { onTestFinished } from "vitest";
import { createLogger } from "../logging.ts";
import { type ServeOptions, type Server, serve } from "../serving/serve.ts";
import { SampleService } from "./sample-service.ts";

export const sampleImplementation: ServiceImpl<typeof SampleService> = {
  echo: ({ value }) => ({ value }),
  reflect: (request) => request,
  measure: ({ value }) => ({ value: value.byteLength }),
  async *count({ value }) {
    for (let number = 1; number <= value; number++) {
      yield { value: number };
    }
  },
  async *flood(_request, { signal }) {
    const value = new Uint8Array(64 * 1024);
    while (!signal.aborted) {
      yield { value };
    }
  },
  async join(requests) {
    const texts: string[] = [];
    for await (const { value } of requests) {
      texts.push(value);
    }
    return { value: texts.join(" ") };
  },
  async *chat(requests) {
    for await (const { value } of requests) {
      yield { value: `${value}!` };
    }
  },
};

export interface SampleServer extends Server {
  /** Everything that was logged, parsed. */
  readonly logged: Record<string, unknown>[];
}

/** Serves the sample service until the test is over, which must not have to wait for it. */
export async function serveSample(
  options: Partial<ServeOptions> = {},
  implementation: Partial<ServiceImpl<typeof SampleService>> = {},
): Promise<SampleServer> {
  const logged: Record<string, unknown>[] = [];
  const server = await serve({
    name: "sample",
    routes: (router) => {
      router.service(SampleService, { ...sampleImplementation, ...implementation });
    },
    logger: createLogger({
      level: "debug",
      format: "json",
      destination: { write: (line: string) => logged.push(JSON.parse(line)) },
    }),
    register: false,
    drainTimeoutMs: 0,
    ...options,
  });
  onTestFinished(() => server.close());
  return Object.assign(server, { logged });
}

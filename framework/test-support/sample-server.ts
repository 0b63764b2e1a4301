import type { ServiceImpl } from "@connectrpc/connect";
import { onTestFinished } from "vitest";
import { createLogger } from "../logging.ts";
import { type ServeOptions, type Server, serve } from "../serving/serve.ts";
import { sampleImplementation } from "./sample-implementation.ts";
import { SampleService } from "./sample-service.ts";

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

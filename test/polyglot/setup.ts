import { createToolplane, type NodeToolplane } from "@toolplane/client/node";
import { Lifetime, Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { examples, type RunningExample, startExample } from "../../scripts/examples.ts";
import { startTestApp, type TestApp } from "../support/test-app.ts";

/** A server with the examples registered by their addresses. */
export interface Polyglot {
  readonly url: string;
  /** `host:port` of the server. */
  readonly address: string;
  readonly toolplane: NodeToolplane;
  readonly services: Readonly<Record<keyof typeof examples, RunningExample>>;
  close(): Promise<void>;
}

/** Builds and starts everything. The languages have to be there: a suite that skips one would prove nothing. */
export async function startPolyglot(): Promise<Polyglot> {
  const closing: (() => Promise<void> | void)[] = [];
  async function close() {
    for (const part of closing.splice(0).reverse()) {
      await part();
    }
  }
  try {
    for (const example of Object.values(examples)) {
      const missing = example.missing();
      if (missing) {
        throw new Error(missing);
      }
      await example.prepare();
    }
    const app: TestApp = await startTestApp();
    closing.push(() => app.close());
    const toolplane = createToolplane({ url: app.url, httpVersion: "2" });
    closing.push(() => toolplane.close());
    const start = async (name: keyof typeof examples) => {
      const service = await startExample(examples[name]);
      closing.push(() => service.stop());
      const { service: registered } = await toolplane.registry.registerService({
        service: {
          name,
          tags: [examples[name].language.toLowerCase()],
          ...(name === "stats" && {
            source: {
              kind: { case: "utcpManual", value: { manual: { case: "url", value: `${service.url}/utcp` } } },
            },
          }),
        },
        instance: {
          endpoint: name === "stats" ? service.url : service.address,
          // Nobody renews it, and the tests may take longer than a lease.
          lifetime: Lifetime.PERMANENT,
          ...(name === "stats" && { protocol: Protocol.HTTP }),
        },
      });
      if (registered?.problems.length !== 0) {
        throw new Error(`${name}: ${registered?.problems.map(({ message }) => message).join("; ")}`);
      }
      return service;
    };
    const services = {
      text: await start("text"),
      time: await start("time"),
      diff: await start("diff"),
      stats: await start("stats"),
    };
    return { url: app.url, address: new URL(app.url).host, toolplane, services, close };
  } catch (error) {
    await close();
    throw error;
  }
}

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { Redis } from "ioredis";
import { onTestFinished, vi } from "vitest";

/** A Redis server of its own port, which keeps nothing and ends with the test. */
export interface RedisServer {
  readonly url: string;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export async function startRedis(): Promise<RedisServer> {
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  let server: ChildProcess | undefined;

  async function kill(): Promise<void> {
    if (server !== undefined && server.exitCode === null && server.signalCode === null) {
      server.kill("SIGKILL");
      await once(server, "exit");
    }
  }
  async function start(): Promise<void> {
    const options = ["--bind", "127.0.0.1", "--port", String(port), "--save", "", "--appendonly", "no"];
    server = spawn("redis-server", options, { stdio: "ignore" });
    const client = new Redis(url, { retryStrategy: () => 50 });
    client.on("error", () => {}); // not up yet
    try {
      await vi.waitFor(() => client.ping(), { timeout: 20_000 });
    } finally {
      client.disconnect();
    }
  }

  onTestFinished(kill);
  await start();
  return { url, kill, start };
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  probe.close();
  await once(probe, "close");
  if (address === null || typeof address === "string") {
    throw new Error("the operating system gave no port");
  }
  return address.port;
}

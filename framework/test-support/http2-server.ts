import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

/** A bare server, for tests of what `serve` is made of. */
export interface Http2Server {
  readonly url: string;
  readonly port: number;
  /** Cuts every connection. */
  close(): Promise<void>;
}

/** Serves routes over HTTP/2 without TLS, on a free port of 127.0.0.1 unless one is given. */
export async function startHttp2Server(
  routes: (router: ConnectRouter) => void,
  port = 0,
): Promise<Http2Server> {
  const server = createServer(connectNodeAdapter({ routes }));
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address = server.address() as AddressInfo; // what a TCP server that listens has
  return {
    url: `http://127.0.0.1:${address.port}`,
    port: address.port,
    async close() {
      const closed = once(server, "close");
      server.close();
      for (const session of sessions) {
        session.destroy();
      }
      await closed;
    },
  };
}

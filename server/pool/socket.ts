import net from "node:net";
import tls from "node:tls";
import type { Clock } from "@toolplane/framework";

export interface SocketOptions {
  readonly origin: string;
  /** What to offer through ALPN, the preferred first. Ignored for cleartext. */
  readonly alpn: readonly string[];
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Authorities to trust and a certificate to present. */
  readonly tls?: tls.SecureContextOptions | undefined;
}

/** Opens a TCP connection, with TLS for `https:`. */
export function openSocket(options: SocketOptions): Promise<net.Socket> {
  const { origin, alpn, timeoutMs, clock, signal } = options;
  const url = new URL(origin);
  const secure = url.protocol === "https:";
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const port = Number(url.port || (secure ? 443 : 80));
  const { promise, resolve, reject } = Promise.withResolvers<net.Socket>();
  const socket: net.Socket = secure
    ? tls.connect({
        ...options.tls,
        host,
        port,
        ALPNProtocols: [...alpn],
        // Server names that are addresses are not allowed in TLS.
        ...(net.isIP(host) ? {} : { servername: host }),
      })
    : net.connect({ host, port });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, 30_000);
  const cancelTimer = clock.after(timeoutMs, () =>
    fail(Object.assign(new Error(`connecting took longer than ${timeoutMs} ms`), { code: "ETIMEDOUT" })),
  );
  const onAbort = () => fail(signal.reason);
  const onClose = () => fail(Object.assign(new Error("socket closed"), { code: "ECONNRESET" }));
  const onReady = () => {
    cleanUp();
    resolve(socket);
  };
  function fail(reason: unknown): void {
    cleanUp();
    // Destroying a socket that is connecting may still emit an error.
    socket.on("error", () => undefined);
    socket.destroy();
    reject(reason);
  }
  function cleanUp(): void {
    cancelTimer();
    signal.removeEventListener("abort", onAbort);
    socket
      .off(secure ? "secureConnect" : "connect", onReady)
      .off("error", fail)
      .off("close", onClose);
  }
  socket
    .on(secure ? "secureConnect" : "connect", onReady)
    .on("error", fail)
    .on("close", onClose);
  if (signal.aborted) {
    onAbort();
  } else {
    signal.addEventListener("abort", onAbort, { once: true });
  }
  return promise;
}

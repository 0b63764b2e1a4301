import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";
import { Code } from "@connectrpc/connect";
import { DomainError, invalidArgument } from "../errors/domain-error.ts";

/** Reads `host:port`; IPv6 addresses are in brackets. */
export function parseListenAddress(listen: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(listen);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65_535)) {
    throw invalidArgument([
      { field: "listen", description: `"${listen}" is not an address to listen on; write host:port` },
    ]);
  }
  return { host, port };
}

/** Where a server is reached from its own machine. */
export function localUrl({ address, port, family }: AddressInfo, secure: boolean): string {
  const host = address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "[::1]" : address;
  const bracketed = family === "IPv6" && !host.startsWith("[") ? `[${host}]` : host;
  return `${secure ? "https" : "http"}://${bracketed}:${port}`;
}

/**
 * Finds out whether an address can be listened on, before anything else is started. It says nothing about later: `serve`
 * throws the same when the address has been taken meanwhile.
 *
 * Throws INVALID_ARGUMENT when it is no address, FAILED_PRECONDITION when it cannot be used.
 */
export async function checkListenAddress(listen: string): Promise<void> {
  const { host, port } = parseListenAddress(listen);
  const server = createServer((socket) => socket.destroy());
  await startListening(server, host, port);
  const closed = once(server, "close");
  server.close();
  await closed;
}

/** Resolves when the server listens; throws FAILED_PRECONDITION that says why it cannot. */
export async function startListening(server: Server, host: string, port: number): Promise<void> {
  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (error) {
    throw explainListenError(error, `${host.includes(":") ? `[${host}]` : host}:${port}`);
  }
}

function explainListenError(error: unknown, address: string): unknown {
  switch (error instanceof Error && "code" in error ? error.code : undefined) {
    case "EADDRINUSE":
      return cannotListen(
        "ADDRESS_IN_USE",
        `another server already listens on ${address}; stop it, or choose another address`,
        error,
      );
    case "EACCES":
    case "EPERM":
      return cannotListen(
        "ADDRESS_NOT_PERMITTED",
        `this process may not listen on ${address}; choose a port from 1024 on, or run it with the right to use lower ones`,
        error,
      );
    case "EADDRNOTAVAIL":
    case "EAFNOSUPPORT":
      return cannotListen(
        "ADDRESS_NOT_AVAILABLE",
        `${address} is no address of this machine; choose one that is, such as 127.0.0.1`,
        error,
      );
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return cannotListen(
        "ADDRESS_NOT_AVAILABLE",
        `the name in ${address} is not known here; choose an address of this machine, such as 127.0.0.1`,
        error,
      );
    default:
      return error;
  }
}

function cannotListen(reason: string, message: string, cause: unknown): DomainError {
  return new DomainError({ code: Code.FailedPrecondition, reason, message, cause });
}

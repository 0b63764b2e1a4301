import type { AddressInfo } from "node:net";
import { invalidArgument } from "../errors/domain-error.ts";

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

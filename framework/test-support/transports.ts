import type { Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

/** What TLS needs on the client's side. */
export interface ClientTls {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

/** Every way to call that a server has to understand, by what it is called in a test's name. */
export const transports: Readonly<Record<string, (baseUrl: string, tls?: ClientTls) => Transport>> = {
  "gRPC over HTTP/2": (baseUrl, nodeOptions) => createGrpcTransport({ baseUrl, ...node(nodeOptions) }),
  "gRPC with JSON over HTTP/2": (baseUrl, nodeOptions) =>
    createGrpcTransport({ baseUrl, useBinaryFormat: false, ...node(nodeOptions) }),
  "gRPC-Web over HTTP/2": (baseUrl, nodeOptions) =>
    createGrpcWebTransport({ baseUrl, httpVersion: "2", ...node(nodeOptions) }),
  "gRPC-Web over HTTP/1.1": (baseUrl, nodeOptions) =>
    createGrpcWebTransport({ baseUrl, httpVersion: "1.1", ...node(nodeOptions) }),
  "Connect JSON over HTTP/2": (baseUrl, nodeOptions) =>
    createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false, ...node(nodeOptions) }),
  "Connect JSON over HTTP/1.1": (baseUrl, nodeOptions) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false, ...node(nodeOptions) }),
  "Connect binary over HTTP/2": (baseUrl, nodeOptions) =>
    createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true, ...node(nodeOptions) }),
  "Connect binary over HTTP/1.1": (baseUrl, nodeOptions) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true, ...node(nodeOptions) }),
};

function node(tls: ClientTls | undefined) {
  return tls === undefined ? {} : { nodeOptions: { ...tls } };
}

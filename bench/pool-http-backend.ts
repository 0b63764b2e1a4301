import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { serverCertificate, serverKey } from "../framework/test-support/certificates.ts";

// The HTTP tool of bench/pool.ts, in a process of its own so that it does not compete with what is measured.
const server = http2.createSecureServer({ cert: serverCertificate, key: serverKey });
server.on("stream", (stream) => {
  stream.on("error", () => undefined);
  stream.respond({ ":status": 200, "content-type": "application/json" });
  stream.end('{"symbol":"ACME","price_cents":4200}');
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address() as AddressInfo; // what a TCP server that listens has
process.send?.(`https://127.0.0.1:${port}`);
process.once("disconnect", () => process.exit());

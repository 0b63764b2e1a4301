import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { createLogger, serve } from "@toolplane/framework";
import { TextService } from "../examples/typescript/gen/examples/text/v1/text_service_pb.js";

// One of the two servers of bench/serving.ts, in a process of its own: `serve` or `adapter`.
const routes = (router: ConnectRouter) =>
  router.service(TextService, { analyzeText: ({ text }) => ({ words: text.length }) });

if (process.argv[2] === "serve") {
  const server = await serve({
    name: "text",
    routes,
    register: false,
    logger: createLogger({ level: "error" }),
  });
  process.send?.(server.url);
} else {
  const server = createServer(connectNodeAdapter({ routes }));
  server.listen(0, "127.0.0.1", () => {
    process.send?.(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  });
}
process.once("disconnect", () => process.exit());

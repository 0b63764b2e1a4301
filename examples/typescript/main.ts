// Serves TextService, and registers it where TOOLPLANE_URL points to.
import { closeOnSignals, serve } from "@toolplane/framework";
import { TextService } from "./gen/examples/text/v1/text_service_pb.js";
import { textService } from "./text-service.ts";

const server = await serve({
  name: "text",
  version: "1.0.0",
  listen: process.argv[2] ?? "127.0.0.1:50053",
  routes: (router) => router.service(TextService, textService),
  register: { title: "Text statistics", tags: ["text"] },
});
closeOnSignals(server);
console.log(`listening on ${server.url}`);

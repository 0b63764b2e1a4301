// Serves TextService, and registers it where TOOLPLANE_URL points to.
import { closeOnSignals, serve } from "@toolplane/framework";
import { TextService } from "./gen/examples/text/v1/text_service_pb.js";
import { textService } from "./text-service.ts";

const server = await serve({
  name: "text",
  version: "1.0.0",
  listen: process.argv[2] ?? "127.0.0.1:50053",
  routes: (router) => router.service(TextService, textService),
  // A short lease: when the process is killed, nobody is sent to it 5 s later.
  register: { title: "Text statistics", tags: ["text"], leaseTtlMs: 5_000 },
});
closeOnSignals(server);
console.log(`listening on ${server.url}`);

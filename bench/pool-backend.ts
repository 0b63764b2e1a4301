import { startGrpcServer } from "../server/pool/test-support/stock-grpc-server.ts";

// The backend of bench/pool.ts, in a process of its own so that it does not compete with what is measured.
const server = await startGrpcServer();
process.send?.(server.url);
process.once("disconnect", () => {
  server.close();
  process.exit();
});

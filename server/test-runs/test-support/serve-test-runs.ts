import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { callContext, type Principal, type Server, serve } from "@toolplane/framework";
import { onTestFinished } from "vitest";
import { silentLogger } from "../../storage/silent-logger.ts";
import type { ConfiguredProject, OtherHandlers, TestRuns } from "../test-runs.ts";

const missing = () => {
  throw new ConnectError("not part of this test", Code.Unimplemented);
};
const others: OtherHandlers = {
  startTestRun: missing,
  importTestResults: missing,
  exportTestResults: missing,
  compareTestRuns: missing,
  getTestHistory: missing,
};

/** Callers say who they are. */
const believeCallers: Interceptor = (next) => (request) => {
  const [id, role] = (request.header.get("x-test-principal") ?? "").split(" ");
  if (id && (role === "reader" || role === "caller" || role === "operator")) {
    const principal: Principal = { id, role };
    callContext(request.contextValues).principal = principal;
  }
  return next(request);
};

/** A real server with a replica's test runs, closed when the test is over. */
export async function serveTestRuns(
  testRuns: TestRuns,
  projects: readonly ConfiguredProject[] = [],
): Promise<Server> {
  const server = await serve({
    name: "test",
    logger: silentLogger,
    register: false,
    drainTimeoutMs: 0,
    interceptors: [believeCallers],
    http: [testRuns.http],
    routes: testRuns.routes(others, projects),
    onDrain: async () => testRuns.drain(),
  });
  onTestFinished(() => server.close());
  return server;
}

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { OrchestrationService } from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import { RunState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import { RegistryService } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { expect, onTestFinished, test } from "vitest";
import { startAnthropicServer } from "../server/orchestration/models/test-support/model-servers.ts";
import { createTestDatabaseUrl } from "../server/storage/testing.ts";
import { startCountingBackend } from "./support/counting-backend.ts";
import { startTestApp } from "./support/test-app.ts";

const WRITE = "faults.examples.faults.v1.FaultService.Write";

test("whoever operates a server sees how many runs there are, what their steps did, and what models used", async () => {
  let fails = 1;
  const backend = await startCountingBackend({
    handle(text) {
      if (text === "again" && fails-- > 0) {
        throw new ConnectError("not yet", Code.Unavailable);
      }
    },
  });
  onTestFinished(() => backend.close());
  const models = await startAnthropicServer(({ turn, tools }) => ({
    kind: "answer",
    usage: { input: 1_000, cached: 400, output: 100 },
    ...(turn === 1
      ? { calls: [{ name: tools[0]?.name ?? "none", arguments: { text: "model" } }] }
      : { text: "Done." }),
  }));
  onTestFinished(() => models.close());
  const app = await startTestApp({
    databaseUrl: await createTestDatabaseUrl(),
    config: JSON.stringify({
      orchestration: {
        models: [
          { name: "main", provider: "anthropic", model: "claude-test", input_price: 3, output_price: 15 },
        ],
      },
    }),
    env: { ANTHROPIC_API_KEY: "sk-a-key-of-some-length", ANTHROPIC_BASE_URL: models.url },
  });
  onTestFinished(() => app.close());
  const transport = createGrpcTransport({ baseUrl: app.url });
  await createClient(RegistryService, transport).registerService({
    service: { name: "faults", version: "1.0.0" },
    instance: { id: "faults", endpoint: backend.url, leaseTtl: { seconds: 3_600n } },
  });
  const runs = createClient(OrchestrationService, transport);
  type Source = NonNullable<NonNullable<Parameters<typeof runs.startRun>[0]["source"]>["kind"]>;
  const start = async (kind: Source) => (await runs.startRun({ source: { kind } })).run?.id ?? "";
  const ended = async (runId: string) => (await runs.getRun({ runId, wait: { seconds: 60n } })).run;
  const workflow = (steps: object[]): Source => ({
    case: "workflow",
    value: { workflow: { case: "text", value: JSON.stringify({ name: "test", steps }) } },
  });

  const succeeded = await start(
    workflow([
      { id: "write", tool: { name: WRITE, arguments: { text: "again" } }, retry: { attempts: 2 } },
      { id: "never", value: 1, condition: "false" },
    ]),
  );
  const asked = await start({
    case: "requirement",
    value: { text: "Write something.", tools: { names: [WRITE] } },
  });
  expect((await ended(succeeded))?.state).toBe(RunState.SUCCEEDED);
  expect((await ended(asked))?.state).toBe(RunState.SUCCEEDED);
  const parked = await start(workflow([{ id: "ask", approval: { message: "Go on?" } }]));
  await expect.poll(async () => (await runs.getRun({ runId: parked })).run?.state).toBe(RunState.WAITING);

  const admin = createClient(AdminService, transport);
  const read = async () => {
    const { families } = await admin.getMetrics({ namePrefixes: ["toolplane_run", "toolplane_model"] });
    return Object.fromEntries(
      families.flatMap(({ samples }) =>
        samples.map(({ name, labels, value }) => [
          [name, ...Object.values(labels).toSorted()].join(" "),
          value,
        ]),
      ),
    );
  };
  await expect.poll(read).toMatchObject({
    "toolplane_runs queued": 0,
    "toolplane_runs running": 0,
    "toolplane_runs waiting": 1,
    toolplane_runs_active: 0,
    "toolplane_runs_begun_total workflow": 2,
    "toolplane_runs_begun_total requirement": 1,
    "toolplane_runs_ended_total succeeded workflow": 1,
    "toolplane_runs_ended_total requirement succeeded": 1,
    toolplane_run_takeovers_total: 0,
    toolplane_run_parkings_total: 1,
    "toolplane_run_step_retries_total tool": 1,
    "toolplane_run_steps_ended_total skipped value": 1,
    "toolplane_run_steps_ended_total requirement succeeded": 1,
    "toolplane_run_steps_ended_total succeeded turn": 2,
    toolplane_model_tool_calls_total: 1,
    "toolplane_model_turns_in_flight main": 0,
    "toolplane_model_turns_total main ok": 2,
    "toolplane_model_tokens_total input main": 2_000,
    "toolplane_model_tokens_total cached_input main": 800,
    "toolplane_model_tokens_total main output": 200,
    toolplane_run_appends_pending: 0,
  });
  const metrics = await read();
  expect(metrics["toolplane_model_cost_usd_total main"]).toBeGreaterThan(0);
  expect(metrics["toolplane_run_events_total"]).toBeGreaterThan(metrics["toolplane_run_appends_total"] ?? 0);

  const watching = new AbortController();
  const watch = runs.watchRun({ runId: parked }, { signal: watching.signal })[Symbol.asyncIterator]();
  await watch.next();
  expect(await read()).toMatchObject({ toolplane_run_watchers: 1 });
  await runs.resolveApproval({ runId: parked, approved: true });
  expect((await ended(parked))?.state).toBe(RunState.SUCCEEDED);
  await expect
    .poll(read)
    .toMatchObject({ "toolplane_runs waiting": 0, "toolplane_runs_ended_total succeeded workflow": 2 });
  watching.abort();
});

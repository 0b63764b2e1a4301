import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { roleOf } from "@toolplane/framework";
import { documentedDescriptors } from "@toolplane/gen/toolplane/documented_descriptors.js";
import { expect, test } from "vitest";

const looking = "reader";
const calling = "caller";
const changing = "operator";

/** Who may call what. A method that is added has to be added here too. */
const expected: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "toolplane.registry.v1.RegistryService": {
    RegisterService: changing,
    RenewLease: changing,
    DeregisterService: changing,
    GetService: looking,
    ListServices: looking,
    WatchServices: looking,
    ListTools: looking,
    SearchTools: looking,
    GetTool: looking,
    CheckHealth: calling,
    ListHealthChecks: looking,
    RefreshService: changing,
  },
  "toolplane.orchestration.v1.OrchestrationService": {
    StartRun: calling,
    ExecuteRun: calling,
    WatchRun: looking,
    GetRun: looking,
    ListRuns: looking,
    ListRunSteps: looking,
    CancelRun: calling,
    RetryRun: calling,
    ResolveApproval: calling,
    PutWorkflow: changing,
    GetWorkflow: looking,
    ListWorkflows: looking,
    DeleteWorkflow: changing,
    ValidateWorkflow: looking,
    PutAgent: changing,
    GetAgent: looking,
    ListAgents: looking,
    DeleteAgent: changing,
  },
  "toolplane.testing.v1.TestRunService": {
    StartTestRun: calling,
    CreateTestRun: calling,
    AppendTestEvents: calling,
    FinishTestRun: calling,
    ImportTestResults: calling,
    ExportTestResults: looking,
    WatchTestRun: looking,
    GetTestRun: looking,
    ListTestRuns: looking,
    ListTestResults: looking,
    GetTestCoverage: looking,
    GetTestHistory: looking,
    CompareTestRuns: looking,
    CancelTestRun: calling,
    ListProjects: looking,
  },
  "toolplane.tools.v1.ToolService": {
    CallTool: calling,
    CallToolStream: calling,
    CallTools: calling,
  },
  "toolplane.admin.v1.AdminService": {
    GetMetrics: looking,
    WatchStats: looking,
    ListBreakers: looking,
    ResetBreaker: changing,
    IsolateBreaker: changing,
    ListLimits: looking,
    ListCaches: looking,
    PurgeCache: changing,
    ListPools: looking,
    GetRuntime: looking,
    CreateApiKey: changing,
    RotateApiKey: changing,
    RevokeApiKey: changing,
    ListApiKeys: changing,
  },
};

test("every method of every service asks for the role that it should", () => {
  const files = fromBinary(FileDescriptorSetSchema, Buffer.from(documentedDescriptors, "base64"));
  const services = [...createFileRegistry(files)].filter((type) => type.kind === "service");
  const actual = Object.fromEntries(
    services
      .filter(({ typeName }) => typeName.startsWith("toolplane."))
      .map(({ typeName, methods }) => [
        typeName,
        Object.fromEntries(methods.map((method) => [method.name, roleOf(method)])),
      ]),
  );
  expect(actual).toEqual(expected);
});

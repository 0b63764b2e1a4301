import { create } from "@bufbuild/protobuf";
import { RunEventSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { RunState, StepState } from "@toolplane/gen/toolplane/orchestration/v1/run_pb.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { aRun, aStep, finished, numbered, started } from "../../testing/scripted-run.ts";
import { applyEvent, createRunTree, endedSteps, parentPath, type RunTree, takeStep } from "./run-tree.ts";

type Kinds = Parameters<typeof numbered>[0];

function fold(...kinds: Kinds): RunTree {
  const tree = createRunTree();
  for (const event of numbered(kinds)) applyEvent(tree, event);
  return tree;
}

const failed = { state: StepState.FAILED, error: { code: 14, message: "it does not answer" } };

describe("the tree of a run", () => {
  it("knows the planned steps, and how each of them stands", () => {
    const tree = fold(
      ["", { case: "created", value: aRun({ state: RunState.QUEUED }) }],
      ["", { case: "started", value: { worker: "w1" } }],
      [
        "",
        {
          case: "planned",
          value: { steps: ["fetch", "review", "report"].map((path) => ({ path, kind: "tool" })) },
        },
      ],
      started("fetch", { target: "weather.GetForecast" }),
      finished(aStep("fetch", { target: "weather.GetForecast" })),
      started("review"),
    );
    expect(tree.state).toBe(RunState.RUNNING);
    expect([...tree.roots.values()].map(({ path, state }) => [path, state])).toEqual([
      ["fetch", StepState.SUCCEEDED],
      ["review", StepState.RUNNING],
      ["report", StepState.PENDING],
    ]);
    expect(tree.ended).toEqual({ succeeded: 1, failed: 0, skipped: 0, cancelled: 0 });
  });

  it("puts turns, calls and items below their steps", () => {
    const tree = fold(
      started("review", { kind: "requirement" }),
      started("review/turn1", { kind: "turn" }),
      started("review/turn1/call2"),
      started("notify", { kind: "fan_out", items: 3 }),
      started("notify[1]"),
      started("notify[1]/turn1", { kind: "turn" }),
    );
    const below = (path: string) => [...(tree.nodes.get(path)?.children.keys() ?? [])];
    expect([...tree.roots.keys()]).toEqual(["review", "notify"]);
    expect(below("review")).toEqual(["review/turn1"]);
    expect(below("review/turn1")).toEqual(["review/turn1/call2"]);
    expect(below("notify")).toEqual(["notify[1]"]);
    expect(below("notify[1]")).toEqual(["notify[1]/turn1"]);
  });

  it("shows what a model writes until its turn ends, without what it began anew", () => {
    const delta = (text: string, restarted = false): Kinds[number] => [
      "main/turn1",
      { case: "modelDelta", value: { text, restarted } },
    ];
    const events: Kinds = [
      started("main/turn1", { kind: "turn" }),
      delta("forget "),
      delta("Hel", true),
      delta("lo"),
    ];
    expect(fold(...events).nodes.get("main/turn1")?.text).toBe("Hello");
    expect(fold(...events, finished(aStep("main/turn1"))).nodes.get("main/turn1")?.text).toBe("");
  });

  it("remembers what is asked until it is answered, however that is told", () => {
    const asked: Kinds = [
      started("gate", { kind: "approval" }),
      ["gate", { case: "approvalRequested", value: { path: "gate", message: "Deploy?" } }],
      ["", { case: "waiting", value: {} }],
    ];
    expect(fold(...asked).state).toBe(RunState.WAITING);
    expect([...fold(...asked).approvals.keys()]).toEqual(["gate"]);
    expect(
      fold(...asked, ["gate", { case: "approvalResolved", value: { approved: true } }]).approvals.size,
    ).toBe(0);
    expect(fold(...asked, finished(aStep("gate"))).approvals.size).toBe(0);
  });

  it("counts a step once whose end is told again", () => {
    const tree = fold(finished(aStep("fetch")), finished(aStep("fetch")));
    expect(endedSteps(tree.ended)).toBe(1);
  });

  it("is the same from the steps that a server lists", () => {
    const tree = createRunTree();
    takeStep(tree, aStep("fetch"));
    takeStep(tree, aStep("notify", { ...failed, kind: "fan_out" }));
    takeStep(tree, aStep("notify[2]", failed));
    takeStep(tree, aStep("report", { state: StepState.RUNNING }));
    expect([...tree.roots.keys()]).toEqual(["fetch", "notify", "report"]);
    expect(tree.nodes.get("notify")?.ended.failed).toBe(1);
    expect(tree.nodes.get("report")?.state).toBe(StepState.RUNNING);
  });

  it("ignores what a newer server tells", () => {
    const tree = createRunTree();
    applyEvent(tree, create(RunEventSchema, { sequence: 1n, path: "fetch" }));
    expect(tree.nodes.size).toBe(0);
  });
});

describe("the memory of a run", () => {
  it("holds ten thousand items as counts, with the failures", () => {
    const tree = createRunTree();
    applyEvent(
      tree,
      create(RunEventSchema, { path: "notify", kind: started("notify", { items: 10_000 })[1] }),
    );
    let most = 0;
    for (let item = 0; item < 10_000; item++) {
      const path = `notify[${item}]`;
      const isBad = item % 1_000 === 7;
      const inner = aStep(`${path}/turn1`, { kind: "turn" });
      for (const event of numbered([
        started(path),
        started(inner.path),
        finished(inner),
        finished(aStep(path, isBad ? failed : {})),
      ])) {
        applyEvent(tree, event);
      }
      most = Math.max(most, tree.nodes.size);
    }
    const fanOut = tree.nodes.get("notify");
    expect(fanOut?.ended).toEqual({ succeeded: 9_990, failed: 10, skipped: 0, cancelled: 0 });
    expect([...(fanOut?.children.keys() ?? [])]).toHaveLength(10);
    expect(tree.failures).toHaveLength(10);
    expect(endedSteps(tree.ended)).toBe(20_000);
    expect(most).toBeLessThan(50);
  });

  it("is bounded when every item and every call of a model fails", () => {
    const tree = createRunTree();
    for (let item = 0; item < 10_000; item++) {
      for (const event of numbered([
        finished(aStep(`main/turn1/call${item}`, failed)),
        finished(aStep(`notify[${item}]`, failed)),
      ])) {
        applyEvent(tree, event);
      }
    }
    expect(tree.nodes.size).toBeLessThanOrEqual(2_003);
    expect(tree.forgettable.size).toBeLessThanOrEqual(2_000);
    expect(tree.failures).toHaveLength(100);
    expect(tree.ended.failed).toBe(20_000);
  });

  it("is bounded for steps that never end and for paths as deep as they may be", () => {
    const tree = createRunTree();
    for (let n = 0; n < 50_000; n++) {
      applyEvent(tree, create(RunEventSchema, { path: `s${n}`, kind: started(`s${n}`)[1] }));
    }
    expect(tree.nodes.size).toBe(20_000);
    const deep = createRunTree();
    const path = Array.from({ length: 170 }, (_, n) => `t${n % 10}`).join("/");
    applyEvent(deep, create(RunEventSchema, { path, kind: started(path)[1] }));
    expect(deep.nodes.size).toBe(170);
    const deeper = `${path}/${path}/${path}`;
    applyEvent(deep, create(RunEventSchema, { path: deeper, kind: started(deeper)[1] }));
    expect(deep.nodes.size).toBe(170);
  });

  it("keeps only the end of what a model writes", () => {
    const tree = createRunTree();
    for (let n = 0; n < 1_000; n++) {
      const kind = { case: "modelDelta" as const, value: { text: `${n} ${"word ".repeat(20)}` } };
      applyEvent(tree, create(RunEventSchema, { path: "main/turn1", kind }));
    }
    const text = tree.nodes.get("main/turn1")?.text ?? "";
    expect(text.length).toBeLessThanOrEqual(4_000);
    expect(text).toContain("999 word");
  });
});

it("the step above is found for every path that a server makes", () => {
  expect(["fetch", "notify[3]", "review/turn1", "notify[3]/turn1/call2"].map(parentPath)).toEqual([
    undefined,
    "notify",
    "review",
    "notify[3]/turn1",
  ]);
  const part = fc.stringMatching(/^[a-z]{1,8}(\[\d{1,4}\])?$/);
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 10 }), (parts) => {
      let path: string | undefined = parts.join("/");
      for (let steps = 0; path !== undefined; steps++) {
        expect(steps).toBeLessThan(21);
        path = parentPath(path);
      }
    }),
  );
});

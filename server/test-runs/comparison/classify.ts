import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  Confidence,
  TestChangeKind,
  type VerdictSchema,
} from "@toolplane/gen/toolplane/testing/v1/comparison_pb.js";
import { type AlignedTest, isUnanimous, isUnstable, type Observations } from "./aligned-test.ts";
import { countText } from "./duration-text.ts";
import { type Outcome, statusWords } from "./outcome.ts";

/** From so many runs a side on, a change that all of them show is not chance: by Fisher's exact test p <= 0.0022. */
const MANY_RUNS = 6;

export interface StatusChange {
  readonly kind: TestChangeKind;
  readonly verdict: MessageInitShape<typeof VerdictSchema>;
}

/**
 * What became of a test, by how it ended on both sides alone. Undefined: nothing. `sameCode` says that both sides tested
 * the same code; what passes on one side and fails on the other is unstable then.
 */
export function classifyStatus({ base, head }: AlignedTest, sameCode: boolean): StatusChange | undefined {
  const kind = kindOf(base, head, sameCode);
  return kind === undefined ? undefined : { kind, verdict: verdictOf(kind, base, head, sameCode) };
}

function kindOf(base: Observations, head: Observations, sameCode: boolean): TestChangeKind | undefined {
  const byAbsence = absenceKind(base.outcome, head.outcome);
  if (byAbsence !== undefined) {
    return byAbsence;
  }
  const broken = isUnanimous(base, "good") && isUnanimous(head, "bad");
  const fixed = isUnanimous(base, "bad") && isUnanimous(head, "good");
  if (sameCode && (broken || fixed)) {
    return TestChangeKind.UNSTABLE;
  }
  if (broken) {
    return TestChangeKind.NEWLY_FAILING;
  }
  if (fixed) {
    return TestChangeKind.FIXED;
  }
  if (isUnstable(base) || isUnstable(head)) {
    return TestChangeKind.UNSTABLE;
  }
  return presentKind(base, head);
}

function absenceKind(base: Outcome, head: Outcome): TestChangeKind | undefined {
  if (head === "absent") {
    return TestChangeKind.REMOVED;
  }
  if (base !== "absent") {
    return undefined;
  }
  switch (head) {
    case "good":
    case "left-out":
      return TestChangeKind.ADDED;
    case "bad":
      return TestChangeKind.ADDED_FAILING;
    case "lost":
      return TestChangeKind.LOST;
  }
}

/** For a test that is on both sides and whose runs do not contradict each other. */
function presentKind(base: Observations, head: Observations): TestChangeKind | undefined {
  const from = base.outcome;
  const to = head.outcome;
  if (to === "bad" && from === "bad" && base.status === head.status) {
    return TestChangeKind.STILL_FAILING;
  }
  if (base.status === head.status) {
    return undefined;
  }
  if (to === "lost" && from !== "lost") {
    return TestChangeKind.LOST;
  }
  if (to === "left-out" && (from === "good" || from === "bad")) {
    return TestChangeKind.NEWLY_SKIPPED;
  }
  if (from === "left-out" && (to === "good" || to === "bad")) {
    return TestChangeKind.NO_LONGER_SKIPPED;
  }
  if (from === "good" && to === "bad") {
    return TestChangeKind.NEWLY_FAILING;
  }
  return from === "bad" && to === "good" ? TestChangeKind.FIXED : TestChangeKind.STATUS_CHANGED;
}

function verdictOf(
  kind: TestChangeKind,
  base: Observations,
  head: Observations,
  sameCode: boolean,
): MessageInitShape<typeof VerdictSchema> {
  const unstable = kind === TestChangeKind.UNSTABLE;
  return {
    rule: unstable ? "unstable-outcome" : "status-transition",
    baseN: base.statuses.length,
    headN: head.statuses.length,
    confidence: confidenceOf(base, head),
    explanation: unstable
      ? unstableWords(base, head, sameCode)
      : `${statusWords(base.status)}${runsWords(base)} → ${statusWords(head.status)}${runsWords(head)}`,
  };
}

function confidenceOf(base: Observations, head: Observations): Confidence {
  if (base.outcome === "absent" || head.outcome === "absent") {
    return Confidence.HIGH;
  }
  const least = Math.min(base.statuses.length, head.statuses.length);
  // A run that saw both outcomes leaves no doubt that there are both.
  if (base.retried > 0 || head.retried > 0 || least >= MANY_RUNS) {
    return Confidence.HIGH;
  }
  return least >= 2 || isUnstable(base) || isUnstable(head) ? Confidence.MEDIUM : Confidence.LOW;
}

function runsWords({ status, statuses }: Observations): string {
  return statuses.length < 2
    ? ""
    : ` in ${statuses.filter((each) => each === status).length} of ${statuses.length} runs`;
}

function unstableWords(base: Observations, head: Observations, sameCode: boolean): string {
  const parts = [["base", base] as const, ["head", head] as const].map(([side, { statuses, retried }]) => {
    const counts = new Map<string, number>();
    for (const status of statuses) {
      counts.set(statusWords(status), (counts.get(statusWords(status)) ?? 0) + 1);
    }
    const words = [...counts].map(([word, count]) => (statuses.length === 1 ? word : `${count} × ${word}`));
    const retries = retried > 0 ? ` (after retries in ${countText(retried, "run")})` : "";
    return `${side}: ${words.join(", ")}${retries}`;
  });
  return `${parts.join("; ")}${sameCode ? "; both sides tested the same code" : ""}`;
}

import type { TestIdentity } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { fullName } from "../test-id.ts";
import type { AlignedTest } from "./aligned-test.ts";
import { type Shingles, shinglesOf, similarityOf } from "./similarity.ts";

/** Below, two names are taken for two tests. */
const THRESHOLD = 0.7;
/** What a name weighs against the rest of the evidence, when the file is the same. */
const NAME_WEIGHT = 0.85;
const PARAMETERS_WEIGHT = 0.1;
const SUITE_WEIGHT = 0.05;
/** What equal names in two files are worth; the files' names and what their other tests did make up the rest. */
const MOVED_WEIGHT = 0.6;
const FILE_WEIGHT = 0.2;
const NEIGHBOUR_WEIGHT = 0.2;
/** A test is compared with so many neighbours in each order of names. */
const WINDOW = 20;
const MAX_PROPOSALS = 1_000;
/** More tests of one full name say nothing about which of them went where. */
const MAX_NAMESAKES = 10;

interface Candidate {
  readonly testId: string;
  readonly test: TestIdentity;
  readonly name: string;
  readonly shingles: Shingles;
}

interface Pair {
  readonly from: Candidate;
  readonly to: Candidate;
  readonly similarity: number;
  readonly evidence: string;
}

export interface Rename {
  readonly fromId: string;
  readonly toId: string;
  readonly from: TestIdentity;
  readonly to: TestIdentity;
  readonly similarity: number;
  readonly evidence: string;
}

/**
 * Pairs of a test that is gone and one that is new which may be the same test: those of one file with similar names, and
 * those of one name in two files. Each test is proposed once at most, the most similar pairs first.
 *
 * Names of a file are compared within a window of the names in order, read forwards and backwards, not all with all
 * (the sorted neighbourhood method, Hernández and Stolfo 1995), so the cost grows with n log n.
 */
export function proposeRenames(removed: readonly AlignedTest[], added: readonly AlignedTest[]): Rename[] {
  if (removed.length === 0 || added.length === 0) {
    return [];
  }
  const gone = removed.map(candidate);
  const fresh = added.map(candidate);
  const pairs = [...sameFilePairs(gone, fresh), ...sameNamePairs(gone, fresh)]
    .filter(({ similarity }) => similarity >= THRESHOLD)
    .sort((a, b) => b.similarity - a.similarity || order(a.from, b.from) || order(a.to, b.to));
  const taken = new Set<string>();
  const renames: Rename[] = [];
  for (const { from, to, similarity, evidence } of pairs) {
    if (renames.length < MAX_PROPOSALS && !taken.has(from.testId) && !taken.has(to.testId)) {
      taken.add(from.testId).add(to.testId);
      renames.push({
        fromId: from.testId,
        toId: to.testId,
        from: from.test,
        to: to.test,
        similarity,
        evidence,
      });
    }
  }
  return renames;
}

function candidate({ testId, test }: AlignedTest): Candidate {
  const name = fullName(test);
  return { testId, test, name, shingles: shinglesOf(name) };
}

function order(a: Candidate, b: Candidate): number {
  const left = `${a.test.file}\0${a.name}\0${a.testId}`;
  const right = `${b.test.file}\0${b.name}\0${b.testId}`;
  return left < right ? -1 : left > right ? 1 : 0;
}

/** What must be the same in any case. */
function surroundings({ framework, project, variant }: TestIdentity): string {
  return `${framework}\0${project}\0${variant}`;
}

function groupBy(
  candidates: readonly Candidate[],
  key: (candidate: Candidate) => string,
): Map<string, Candidate[]> {
  return Map.groupBy(candidates, key);
}

function* sameFilePairs(gone: readonly Candidate[], fresh: readonly Candidate[]): Generator<Pair> {
  const fileOf = ({ test }: Candidate) => `${surroundings(test)}\0${test.file}`;
  const freshByFile = groupBy(fresh, fileOf);
  for (const [file, from] of groupBy(gone, fileOf)) {
    for (const [a, b] of neighbours(from, freshByFile.get(file) ?? [])) {
      yield renamedPair(a, b);
    }
  }
}

/** Pairs of both lists that are near to each other by name; all pairs of short lists. */
function neighbours(from: readonly Candidate[], to: readonly Candidate[]): Iterable<[Candidate, Candidate]> {
  if (to.length <= 2 * WINDOW) {
    return from.flatMap((a) => to.map((b): [Candidate, Candidate] => [a, b]));
  }
  const forwards = near(from, to, ({ name }) => name);
  const backwards = near(from, to, ({ name }) => [...name].reverse().join(""));
  return [...forwards, ...backwards];
}

function near(
  from: readonly Candidate[],
  to: readonly Candidate[],
  keyOf: (candidate: Candidate) => string,
): [Candidate, Candidate][] {
  const keyed = to.map((value) => ({ key: keyOf(value), value })).sort((a, b) => (a.key < b.key ? -1 : 1));
  return from.flatMap((a) => {
    const place = lowerBound(keyed, keyOf(a));
    return keyed
      .slice(Math.max(0, place - WINDOW / 2), place + WINDOW / 2)
      .map(({ value }): [Candidate, Candidate] => [a, value]);
  });
}

function lowerBound(keyed: readonly { readonly key: string }[], key: string): number {
  let low = 0;
  let high = keyed.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keyed[middle]?.key ?? "") < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

function renamedPair(from: Candidate, to: Candidate): Pair {
  const names = similarityOf(from.shingles, to.shingles);
  const sameParameters = from.test.parameters === to.test.parameters;
  const sameSuite = from.test.suitePath.join("\0") === to.test.suitePath.join("\0");
  const similarity =
    NAME_WEIGHT * names + PARAMETERS_WEIGHT * Number(sameParameters) + SUITE_WEIGHT * Number(sameSuite);
  const facts = [
    "same file",
    `names ${Math.round(100 * names)} % alike`,
    ...(sameParameters && from.test.parameters !== "" ? ["same parameters"] : []),
    ...(sameSuite && from.test.suitePath.length > 0 ? ["same suite"] : []),
  ];
  return { from, to, similarity, evidence: facts.join(", ") };
}

function* sameNamePairs(gone: readonly Candidate[], fresh: readonly Candidate[]): Generator<Pair> {
  const nameOf = ({ test, name }: Candidate) => `${surroundings(test)}\0${name}`;
  const freshByName = groupBy(fresh, nameOf);
  const moved: { from: Candidate; to: Candidate }[] = [];
  for (const [name, from] of groupBy(gone, nameOf)) {
    const to = freshByName.get(name) ?? [];
    if (from.length <= MAX_NAMESAKES && to.length <= MAX_NAMESAKES) {
      moved.push(...from.flatMap((a) => to.map((b) => ({ from: a, to: b }))));
    }
  }
  const way = (from: Candidate, to: Candidate) => `${from.test.file}\0${to.test.file}`;
  const byWay = Map.groupBy(moved, ({ from, to }) => way(from, to));
  const goneByFile = groupBy(gone, ({ test }) => test.file);
  for (const { from, to } of moved) {
    const together = byWay.get(way(from, to))?.length ?? 1;
    const all = goneByFile.get(from.test.file)?.length ?? 1;
    yield movedPair(from, to, Math.min(together, all), all);
  }
}

function movedPair(from: Candidate, to: Candidate, together: number, all: number): Pair {
  const files = similarityOf(shinglesOf(from.test.file), shinglesOf(to.test.file));
  const similarity = MOVED_WEIGHT + FILE_WEIGHT * files + NEIGHBOUR_WEIGHT * (together / all);
  const evidence = `same name in another file; ${together} of the ${all} tests that ${from.test.file} lost are there`;
  return { from, to, similarity, evidence };
}

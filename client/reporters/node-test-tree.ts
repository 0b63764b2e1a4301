import type { TestIdentityInit } from "../runners/occurrences.ts";
import type { NodeTestData } from "./node-test-event.ts";

/** A test or suite of a run. */
export interface NodeTest {
  readonly file: string;
  readonly name: string;
  readonly nesting: number;
  /** Undefined: it is not nested, or what it is nested in is not known yet. */
  parent: NodeTest | undefined;
  /** Whether `parent` says so. */
  placed: boolean;
  /** Undefined: it is not known yet. */
  isSuite: boolean | undefined;
  identity: TestIdentityInit | undefined;
  /** Milliseconds since 1970. Undefined: it did not start. */
  startTime: number | undefined;
  /** Its start was told. */
  announced: boolean;
  /** It will not be told of again. */
  ended: boolean;
  /** It completed, though its place may not be known. */
  completed: boolean;
  /** It was told of in the order of definition. */
  ordered: boolean;
}

/**
 * Finds out which test an event is about and what the test is nested in. Node 24 numbers its tests. Before, a test is
 * what has its name and place, and is nested in what runs one level above: where several do, only the events that come
 * in the order of definition, which Node holds back until it is their turn, tell which.
 */
export class NodeTestTree {
  readonly #numbered = new Map<string, NodeTest>();
  readonly #similar = new Map<string, NodeTest[]>();
  /** Tests that run, by file. */
  readonly #running = new Map<string, Set<NodeTest>>();
  /** The path of the last event in the order of definition, by file. */
  readonly #stacks = new Map<string, NodeTest[]>();
  readonly #byFile = new Map<string, NodeTest[]>();

  /** A test that was not heard of before. */
  add(data: NodeTestData): NodeTest {
    const file = fileOf(data);
    const test: NodeTest = {
      file,
      name: data.name,
      nesting: data.nesting,
      parent: undefined,
      placed: data.nesting === 0,
      isSuite: data.type === undefined ? undefined : data.type === "suite",
      identity: undefined,
      startTime: undefined,
      announced: false,
      ended: false,
      completed: false,
      ordered: false,
    };
    if (data.testId !== undefined) {
      test.parent = this.#numbered.get(numberKey(data, data.parentId));
      test.placed = true;
      this.#numbered.set(numberKey(data, data.testId), test);
    } else {
      const above = [...(this.#running.get(file) ?? [])].filter(
        ({ nesting }) => nesting === data.nesting - 1,
      );
      if (above.length === 1) {
        test.parent = above[0];
        test.placed = true;
      }
      listOf(this.#similar, placeKey(data)).push(test);
    }
    listOf(this.#byFile, file).push(test);
    return test;
  }

  started(data: NodeTestData): NodeTest | undefined {
    const test =
      this.#numberedTest(data) ?? this.#similarTests(data).find((one) => one.startTime === undefined);
    if (test) {
      test.startTime = Date.now();
      const running = this.#running.get(test.file) ?? new Set();
      this.#running.set(test.file, running.add(test));
    }
    return test;
  }

  /** Node may say so twice. Undefined when several tests may be meant. */
  completed(data: NodeTestData): NodeTest | undefined {
    const similar = this.#similarTests(data);
    const test = this.#numberedTest(data) ?? (similar.length === 1 ? similar[0] : undefined);
    if (test) {
      test.completed = true;
      this.#running.get(test.file)?.delete(test);
    }
    return test;
  }

  /** Is told of tests in the order of definition, outer ones first: now the place of each is known. */
  inOrder(data: NodeTestData): NodeTest {
    const stack = listOf(this.#stacks, fileOf(data));
    const parent = data.nesting === 0 ? undefined : stack[data.nesting - 1];
    const test =
      this.#numberedTest(data) ??
      this.#similarTests(data).find((one) => !one.ordered && (!one.placed || one.parent === parent)) ??
      this.add(data);
    test.ordered = true;
    if (!test.placed) {
      test.parent = parent;
      test.placed = true;
    }
    stack.length = data.nesting;
    stack[data.nesting] = test;
    return test;
  }

  /** The same, when it has ended. */
  endedInOrder(data: NodeTestData): NodeTest {
    const stack = this.#stacks.get(fileOf(data));
    const top = stack?.[data.nesting];
    const test = this.#numberedTest(data) ?? (top?.name === data.name ? top : this.inOrder(data));
    if (stack) {
      stack.length = Math.min(stack.length, data.nesting);
    }
    test.completed = true;
    this.#running.get(test.file)?.delete(test);
    return test;
  }

  testsOf(file: string): readonly NodeTest[] {
    return this.#byFile.get(file) ?? [];
  }

  #numberedTest(data: NodeTestData): NodeTest | undefined {
    return data.testId === undefined ? undefined : this.#numbered.get(numberKey(data, data.testId));
  }

  #similarTests(data: NodeTestData): NodeTest[] {
    return this.#similar.get(placeKey(data)) ?? [];
  }
}

/** The file that runs; before Node 24 the one in which the test is defined, which mostly is the same. */
export function fileOf({ entryFile, file }: NodeTestData): string {
  return entryFile ?? file ?? "";
}

/** Each process counts for itself, and without processes all files count together. */
function numberKey(data: NodeTestData, id: number | undefined): string {
  return `${data.entryFile ?? ""}\n${id}`;
}

function placeKey(data: NodeTestData): string {
  const { line, column, nesting, name } = data;
  return `${fileOf(data)}\n${line}:${column}:${nesting}:${name}`;
}

function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  const list = lists.get(key) ?? [];
  lists.set(key, list);
  return list;
}

import { createContext, Script } from "node:vm";

const script = new Script("run()");
const context = createContext({ run: () => {} });

/**
 * Runs synchronous work and stops it after `ms` milliseconds, wherever it is: V8 can be told so from another thread, and
 * `node:vm` is the way to do that. The work may have left anything half done, so it must not change what outlives it.
 *
 * @returns what `run` returned; undefined when it was stopped
 */
export function withTimeLimit<T>(ms: number, run: () => T): { readonly value: T } | undefined {
  let value: T | undefined;
  let finished = false;
  context["run"] = () => {
    value = run();
    finished = true;
  };
  try {
    script.runInContext(context, { timeout: ms });
  } catch (error) {
    // It comes from the context, whose `Error` is another one.
    if (Object(error).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") {
      throw error;
    }
  } finally {
    context["run"] = () => {};
  }
  // It has a value of its type as soon as it has finished.
  return finished ? { value: value as T } : undefined;
}

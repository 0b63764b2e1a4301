import type { Clock } from "@toolplane/framework";
import {
  createOutlierDetector,
  type InstanceCall,
  type InstanceSnapshot,
  type OutlierDetector,
  type OutlierEvent,
  type OutlierOptions,
} from "@toolplane/framework/policies";

/** How often instances are looked at while calls are unanswered, in milliseconds. */
const LOOK_MS = 500;
/** The most tools whose instances are compared. */
const MAX_GROUPS = 5_000;

export interface OutliersOptions extends Pick<OutlierOptions, "ejectionTimeMs" | "maxEjectedPercent"> {
  readonly clock: Clock;
  /** Told of every change of an instance; `group` names the tool. */
  readonly onEvent?: ((event: OutlierEvent, group: string) => void) | undefined;
}

/**
 * Finds instances that do worse than their siblings, for every tool by itself: tools of one service may take very
 * different times, so that an instance that happens to have more of the slow ones looks slow.
 */
export interface Outliers {
  /** Those of `candidates` that may get a call of the tool that `group` names. */
  eligible<T extends { readonly id: string }>(group: string, candidates: readonly T[]): readonly T[];
  /** A call begins. */
  begin(group: string, instanceId: string): InstanceCall;
  /** Calls back when the instance is ejected because it is slow or does not answer, until the returned function is called. */
  onSlow(group: string, instanceId: string, callback: () => void): () => void;
  list(): readonly (InstanceSnapshot & { readonly group: string })[];
  /** How often an instance was ejected. */
  readonly total: number;
  /** Lets an instance back in. False: it is not known. */
  restore(instanceId: string): boolean;
}

/** The instances of one tool. */
interface Group {
  readonly detector: OutlierDetector;
  /** By instance. */
  readonly onSlow: Map<string, Set<() => void>>;
  /** How many calls are. */
  unanswered: number;
}

export function createOutliers({ clock, onEvent, ...limits }: OutliersOptions): Outliers {
  const groups = new Map<string, Group>();
  const waiting = new Set<Group>();
  let total = 0;
  let looking = false;

  /** Detectors look when calls come. When all callers wait for an instance that hangs, none comes. */
  function keepLooking(): void {
    if (looking || waiting.size === 0) {
      return;
    }
    looking = true;
    clock.after(LOOK_MS, () => {
      looking = false;
      for (const { detector } of [...waiting]) {
        detector.eligible([]);
      }
      keepLooking();
    });
  }

  function groupOf(name: string): Group {
    const found = groups.get(name);
    if (found) {
      return found;
    }
    const [oldest] = groups.keys();
    if (groups.size >= MAX_GROUPS && oldest !== undefined) {
      groups.delete(oldest);
    }
    const onSlow: Group["onSlow"] = new Map();
    const detector = createOutlierDetector({
      ...limits,
      clock,
      onEvent(event) {
        onEvent?.(event, name);
        if (event.kind !== "ejected") {
          return;
        }
        total++;
        // Where calls fail they end by themselves.
        if (event.reason === "hanging" || event.reason === "latency") {
          for (const callback of [...(onSlow.get(event.instance) ?? [])]) {
            callback();
          }
        }
      },
    });
    const group = { detector, onSlow, unanswered: 0 };
    groups.set(name, group);
    return group;
  }

  return {
    eligible: (name, candidates) => groupOf(name).detector.eligible(candidates, idOf),
    begin(name, instanceId) {
      const group = groupOf(name);
      const call = group.detector.begin(instanceId);
      group.unanswered++;
      waiting.add(group);
      keepLooking();
      let over = false;
      return {
        end(outcome, durationMs) {
          if (over) {
            return;
          }
          over = true;
          group.unanswered--;
          if (group.unanswered === 0) {
            waiting.delete(group);
          }
          call.end(outcome, durationMs);
        },
      };
    },
    onSlow(name, instanceId, callback) {
      const { onSlow } = groupOf(name);
      const own = onSlow.get(instanceId) ?? new Set();
      onSlow.set(instanceId, own.add(callback));
      return () => {
        own.delete(callback);
        if (own.size === 0 && onSlow.get(instanceId) === own) {
          onSlow.delete(instanceId);
        }
      };
    },
    list: () =>
      [...groups].flatMap(([group, { detector }]) =>
        detector.list().map((instance) => ({ ...instance, group })),
      ),
    get total() {
      return total;
    },
    restore: (instanceId) =>
      [...groups.values()].map(({ detector }) => detector.reset(instanceId)).some((known) => known),
  };
}

function idOf({ id }: { readonly id: string }): string {
  return id;
}

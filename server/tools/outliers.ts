import type { Clock } from "@toolplane/framework";
import {
  createOutlierDetector,
  type InstanceCall,
  type InstanceSnapshot,
  type OutlierDetector,
  type OutlierOptions,
} from "@toolplane/framework/policies";

/** How often instances are looked at while calls are unanswered, in milliseconds. */
const LOOK_MS = 500;
/** The most versions of services whose instances are compared. */
const MAX_DETECTORS = 5_000;

export interface OutliersOptions extends Pick<OutlierOptions, "ejectionTimeMs" | "maxEjectedPercent"> {
  readonly clock: Clock;
}

/** Finds instances that do worse than their siblings, for every service. */
export interface Outliers {
  /** Those of `candidates` that may get a call of the service that `group` names. */
  eligible<T extends { readonly id: string }>(group: string, candidates: readonly T[]): readonly T[];
  /** A call begins. */
  begin(group: string, instanceId: string): InstanceCall;
  /** Calls back when the instance is ejected, until the returned function is called. */
  onEjected(group: string, instanceId: string, callback: () => void): () => void;
  list(): readonly (InstanceSnapshot & { readonly group: string })[];
  /** How often an instance was ejected. */
  readonly total: number;
  /** Lets an instance back in. False: it is not known. */
  restore(instanceId: string): boolean;
}

export function createOutliers({ clock, ...limits }: OutliersOptions): Outliers {
  const detectors = new Map<string, OutlierDetector>();
  const listeners = new Map<string, Set<() => void>>();
  let total = 0;
  /** Calls that are unanswered, by group. */
  const unanswered = new Map<string, number>();
  let looking = false;

  /** Detectors look when calls come. When all callers wait for an instance that hangs, none comes. */
  function keepLooking(): void {
    if (looking) {
      return;
    }
    looking = true;
    clock.after(LOOK_MS, () => {
      looking = false;
      for (const group of [...unanswered.keys()]) {
        detectors.get(group)?.eligible([]);
      }
      if (unanswered.size > 0) {
        keepLooking();
      }
    });
  }

  function answered(group: string): void {
    const left = (unanswered.get(group) ?? 1) - 1;
    if (left > 0) {
      unanswered.set(group, left);
    } else {
      unanswered.delete(group);
    }
  }

  function detectorOf(group: string): OutlierDetector {
    const found = detectors.get(group);
    if (found) {
      return found;
    }
    const [oldest] = detectors.keys();
    if (detectors.size >= MAX_DETECTORS && oldest !== undefined) {
      detectors.delete(oldest);
    }
    const detector = createOutlierDetector({
      ...limits,
      clock,
      onEvent(event) {
        if (event.kind === "ejected") {
          total++;
          for (const callback of [...(listeners.get(keyOf(group, event.instance)) ?? [])]) {
            callback();
          }
        }
      },
    });
    detectors.set(group, detector);
    return detector;
  }

  return {
    eligible: (group, candidates) => detectorOf(group).eligible(candidates, ({ id }) => id),
    begin(group, instanceId) {
      const call = detectorOf(group).begin(instanceId);
      unanswered.set(group, (unanswered.get(group) ?? 0) + 1);
      keepLooking();
      let over = false;
      return {
        end(outcome, durationMs) {
          if (!over) {
            over = true;
            answered(group);
            call.end(outcome, durationMs);
          }
        },
      };
    },
    onEjected(group, instanceId, callback) {
      const key = keyOf(group, instanceId);
      const own = listeners.get(key) ?? new Set();
      listeners.set(key, own.add(callback));
      return () => {
        own.delete(callback);
        if (own.size === 0 && listeners.get(key) === own) {
          listeners.delete(key);
        }
      };
    },
    list: () =>
      [...detectors].flatMap(([group, detector]) =>
        detector.list().map((instance) => ({ ...instance, group })),
      ),
    get total() {
      return total;
    },
    restore: (instanceId) =>
      [...detectors.values()].map((detector) => detector.reset(instanceId)).some((known) => known),
  };
}

function keyOf(group: string, instanceId: string): string {
  return `${group}\n${instanceId}`;
}

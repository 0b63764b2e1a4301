/** Tells a listener what happened. What a listener throws is its own affair: no policy may break because of it. */
export function reportEvent<Event>(listener: ((event: Event) => void) | undefined, event: Event): void {
  try {
    listener?.(event);
  } catch {
    // There is nobody to tell: the listener was the one.
  }
}

/** A union without some properties of its members, each of which stays what it is; `Omit` would make one type of them. */
export type DistributiveOmit<T, Key extends PropertyKey> = T extends unknown ? Omit<T, Key> : never;

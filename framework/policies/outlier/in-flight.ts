/** A call in a list of calls in flight. */
export interface Flight {
  readonly began: number;
  older: Flight | undefined;
  newer: Flight | undefined;
}

/** The most calls that a list holds: those that begin while it is full are not in it. */
const MAX_FLIGHTS = 10_000;

/** Calls in flight in the order in which they began: adding, removing and finding the oldest take the same time at any load. */
export class InFlight {
  #oldest: Flight | undefined;
  #newest: Flight | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get oldest(): Flight | undefined {
    return this.#oldest;
  }

  /** When the n-th oldest began, counted from 1; undefined when there are not as many. */
  beganAt(n: number): number | undefined {
    let flight = this.#oldest;
    for (let passed = 1; passed < n; passed++) {
      flight = flight?.newer;
    }
    return flight?.began;
  }

  /** @returns false when the list is full */
  add(flight: Flight): boolean {
    if (this.#size >= MAX_FLIGHTS) {
      return false;
    }
    flight.older = this.#newest;
    if (this.#newest === undefined) {
      this.#oldest = flight;
    } else {
      this.#newest.newer = flight;
    }
    this.#newest = flight;
    this.#size++;
    return true;
  }

  /** Removes a call that is in this list. */
  remove(flight: Flight): void {
    const { older, newer } = flight;
    if (older === undefined) {
      this.#oldest = newer;
    } else {
      older.newer = newer;
    }
    if (newer === undefined) {
      this.#newest = older;
    } else {
      newer.older = older;
    }
    flight.older = undefined;
    flight.newer = undefined;
    this.#size--;
  }
}

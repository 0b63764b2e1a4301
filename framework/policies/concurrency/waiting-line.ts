/** A place in a line. */
export interface Place<T> {
  readonly item: T;
  previous: Place<T> | undefined;
  next: Place<T> | undefined;
  taken: boolean;
}

/** First in, first out, and everyone can leave; all in constant time. The order of a `Set` is not: its holes stay a while. */
export interface WaitingLine<T> {
  readonly size: number;
  readonly first: Place<T> | undefined;
  join(item: T): Place<T>;
  /** Nothing happens when the place has been left before. */
  leave(place: Place<T>): void;
}

export function createWaitingLine<T>(): WaitingLine<T> {
  let first: Place<T> | undefined;
  let last: Place<T> | undefined;
  let size = 0;
  return {
    get size() {
      return size;
    },
    get first() {
      return first;
    },
    join(item) {
      const place: Place<T> = { item, previous: last, next: undefined, taken: true };
      if (last === undefined) {
        first = place;
      } else {
        last.next = place;
      }
      last = place;
      size += 1;
      return place;
    },
    leave(place) {
      if (!place.taken) {
        return;
      }
      place.taken = false;
      size -= 1;
      if (place.previous === undefined) {
        first = place.next;
      } else {
        place.previous.next = place.next;
      }
      if (place.next === undefined) {
        last = place.previous;
      } else {
        place.next.previous = place.previous;
      }
    },
  };
}

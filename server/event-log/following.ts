import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import type { Database } from "../storage/database.ts";
import { EVENT_LOG_CHANNEL, type Head, parseChanges } from "./channel.ts";
import { UnknownStreamError } from "./event-log.ts";
import { createFollower, type Follower } from "./follower.ts";
import type { HeadReader } from "./heads.ts";

/** Notifications can be lost with a connection: look at least this often. */
const POLL_INTERVAL_MS = 3_000;

export interface FollowingOptions {
  readonly database: Pick<Database, "listen">;
  readonly heads: HeadReader;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The name of this log. Its own appends come to it by a shorter way, with their events. */
  readonly origin: string;
}

/** Keeps followers of streams up to date with what any replica does. */
export interface Following {
  /** The follower of a stream, shared by its watchers. Each of them leaves in the end. */
  join(stream: string, head: Head): Follower;
  leave(follower: Follower): void;
  get(streamId: string): Follower | undefined;
  /** Ends all watching with this error. */
  close(error: Error): Promise<void>;
}

export async function startFollowing(options: FollowingOptions): Promise<Following> {
  const { database, heads, clock, logger, origin } = options;
  const followed = new Map<string, { readonly follower: Follower; watchers: number }>();
  let cancelPoll = () => {};
  let failure: Error | undefined;

  function onPayload(payload: string): void {
    const told = parseChanges(payload);
    for (const change of told.origin === origin ? [] : told.changes) {
      const follower = followed.get(change.id)?.follower;
      if ("removed" in change) {
        follower?.fail(removed(follower.stream));
      } else {
        follower?.advance(change);
      }
    }
  }

  async function look(follower: Follower): Promise<void> {
    const head = await heads.read(follower.stream);
    if (head?.id === follower.id) {
      follower.advance(head);
    } else {
      follower.fail(removed(follower.stream));
    }
  }

  /** Looks at all streams, in one query. */
  async function lookAtAll(): Promise<void> {
    const looks = await Promise.allSettled([...followed.values()].map(({ follower }) => look(follower)));
    const failed = looks.find((result) => result.status === "rejected");
    if (failed !== undefined && failure === undefined) {
      logger.debug({ err: failed.reason }, "event streams cannot be looked at; trying again");
    }
  }

  function schedulePoll(): void {
    cancelPoll = clock.after(POLL_INTERVAL_MS, () => {
      void lookAtAll().then(() => failure ?? schedulePoll());
    });
  }

  const subscription = await database.listen(EVENT_LOG_CHANNEL, onPayload, () => void lookAtAll());
  schedulePoll();

  return {
    join(stream, head) {
      if (failure !== undefined) {
        throw failure;
      }
      const known = followed.get(head.id);
      if (known !== undefined) {
        known.watchers++;
        known.follower.advance(head);
        return known.follower;
      }
      const follower = createFollower(stream, head, clock);
      followed.set(head.id, { follower, watchers: 1 });
      // What was told between the reading of the head and now was told to nobody. A failure is made good by the poll.
      look(follower).catch(() => undefined);
      return follower;
    },

    leave({ id }) {
      const known = followed.get(id);
      if (known !== undefined && --known.watchers === 0) {
        followed.delete(id);
      }
    },

    get: (streamId) => followed.get(streamId)?.follower,

    async close(error) {
      failure = error;
      cancelPoll();
      for (const { follower } of followed.values()) {
        follower.fail(error);
      }
      await subscription.close();
    },
  };
}

function removed(stream: string): UnknownStreamError {
  return new UnknownStreamError(`the stream "${stream}" was removed`);
}

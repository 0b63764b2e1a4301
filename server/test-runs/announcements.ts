import { announcementsOn, type Announcements as Heard } from "../storage/announcements.ts";

/** A run waits to be claimed, one that somebody runs is to be cancelled, or one has ended. */
type Kind = "queued" | "cancel" | "ended";

export type Announcements = Heard<Kind>;

export const { announce, open: openAnnouncements } = announcementsOn<Kind>("toolplane_test_runs", [
  "queued",
  "cancel",
  "ended",
]);

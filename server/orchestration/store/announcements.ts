import { type Announcements, announcementsOn } from "../../storage/announcements.ts";

/** A run has ended, one that a worker has is to be cancelled, or an approval was resolved. */
type Kind = "ended" | "cancel" | "answer";

export type RunAnnouncements = Announcements<Kind>;

export const { announce, open: openRunAnnouncements } = announcementsOn<Kind>("toolplane_runs", [
  "ended",
  "cancel",
  "answer",
]);

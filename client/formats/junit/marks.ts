/**
 * The properties in which our own JUnit XML says what the format has no place for, so that a report that is read again
 * has the same identities and statuses. Other readers show or skip them.
 */
export const MARK = {
  /** The identity as Protobuf JSON. */
  test: "toolplane.test",
  /** The status without its prefix, such as `EXPECTED_FAILURE`. */
  status: "toolplane.status",
  /** A tag; there may be several. */
  tag: "toolplane.tag",
  /** What a result says besides. */
  message: "toolplane.message",
  traceId: "toolplane.trace_id",
} as const;

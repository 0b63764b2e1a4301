const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** As much of a run's id as people need, and as commands take for it: its first eight digits. */
export function shortRunId(id: string): string {
  return UUID.test(id) ? id.slice(0, 8) : id;
}

/** Whether a text may be the beginning of a run's id, and is not all of it. */
export function isRunIdPrefix(text: string): boolean {
  return /^[0-9a-f][0-9a-f-]{3,34}$/.test(text);
}

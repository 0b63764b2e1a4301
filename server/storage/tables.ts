/**
 * Every table, by name. Each domain declares its row types beside its store and adds them here by extending this
 * interface, so that `Kysely<Tables>` knows them all.
 */
// biome-ignore lint/suspicious/noEmptyInterface: domains extend it.
export interface Tables {}

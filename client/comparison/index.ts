export { MAX_MARKDOWN_CHARS, renderMarkdown } from "./markdown.ts";
export { type ComparisonRow, type ComparisonSection, comparisonRows, type RowTone } from "./rows.ts";

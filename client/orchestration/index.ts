export { graphToMermaid } from "./graph-mermaid.ts";
export { graphToSvg } from "./graph-svg.ts";
export { type GraphLine, graphToLines } from "./graph-text.ts";

import { GetMetricsResponseSchema } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { MetricType } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import type { Context } from "../context.ts";
import { renderColumns } from "../output/columns.ts";
import { formatNumber } from "../output/format.ts";

export async function metrics(context: Context, prefixes: readonly string[]): Promise<undefined> {
  const { admin } = await context.connect();
  const request = { namePrefixes: [...prefixes] };
  const response = await admin.getMetrics(request, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(GetMetricsResponseSchema, response));
  const rows = response.families.flatMap(({ type, samples }) =>
    samples
      // For people the sum and the count of a histogram say more than its buckets do.
      .filter(({ name }) => type !== MetricType.HISTOGRAM || !name.endsWith("_bucket"))
      .map(({ name, labels, value }) => [
        { text: name, style: context.paint.bold },
        formatNumber(value),
        {
          text: Object.entries(labels)
            .map(([label, text]) => `${label}=${text}`)
            .join(" "),
          style: context.paint.dim,
        },
      ]),
  );
  if (rows.length === 0) return void (await context.note("No metric matches."));
  await context.print(
    renderColumns(
      [
        { title: "METRIC", minWidth: 24 },
        { title: "VALUE", align: "right" },
        { title: "LABELS", minWidth: 16 },
      ],
      rows,
      context.columns(),
    ),
  );
}

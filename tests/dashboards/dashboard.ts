// A dashboard as JSON, by the types that Grafana publishes of it; `test_schema.py` asks TypeScript
// whether ours are such.
import type { Dashboard, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// In JSON an enum is its value, and what a panel leaves out is Grafana's default.
type Json<T> = T extends string
  ? `${T}`
  : T extends object
    ? { [K in keyof T]: Json<T[K]> }
    : T;
type Settings<T> = T extends object ? { [K in keyof T]?: Settings<T[K]> } : T;

// Grafana's schema leaves the queries to their data source, here Prometheus.
interface Query {
  expr: string;
  refId: string;
  legendFormat?: string;
  format?: "time_series" | "table" | "heatmap";
  instant: boolean;
  range: boolean;
  exemplar?: boolean;
}

type PanelOf<Type, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Type;
  title: string;
  description: string;
  options?: Settings<Options>;
  fieldConfig?: Omit<FieldConfigSource, "defaults"> & {
    defaults: Omit<FieldConfigSource["defaults"], "custom"> & { custom?: Settings<Custom> };
  };
  targets: Query[];
};

type AnyPanel =
  | PanelOf<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | PanelOf<"stat", stat.Options, never>
  | PanelOf<"state-timeline", timeline.Options, timeline.FieldConfig>
  | PanelOf<"table", table.Options, table.FieldConfig>
  | PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>;

type Annotations = NonNullable<Dashboard["annotations"]>;
type Annotation = NonNullable<Annotations["list"]>[number] & { expr: string };
type Variables = NonNullable<Dashboard["templating"]>;
// What the SDK writes of a variable of any kind, though only one of an interval has it.
type Variable = NonNullable<Variables["list"]>[number] & {
  auto?: boolean;
  auto_min?: string;
  auto_count?: number;
};

export type DashboardJson = Json<
  Omit<Dashboard, "annotations" | "panels" | "templating"> & {
    annotations: { list: Annotation[] };
    panels: (AnyPanel | RowPanel)[];
    templating: { list: Variable[] };
  }
>;

// Writes the JSON Schema of each type of an unpacked @grafana/schema: node grafana-schemas.mjs PACKAGE DIRECTORY
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { SchemaGenerator, createFormatter, createParser, DEFAULT_CONFIG } from "ts-json-schema-generator";
import ts from "typescript";

const [from, to] = process.argv.slice(2);
const PANELS = { timeseries: "TimeSeries", stat: "Stat", table: "Table", bargauge: "BarGauge", heatmap: "Heatmap",
                 statetimeline: "StateTimeline" };
const home = ["dist/types/raw", "dist/esm/raw"].map((path) => join(from, path)).find(existsSync);
const isNew = home.includes("types/raw");

const place = (panel, name) => join(home, "composable", panel, "panelcfg/x", isNew ? "types.gen" : `${name}PanelCfg_types.gen`);
const lines = [`import type * as dashboard from "${resolve(join(home, "dashboard/x", isNew ? "types.gen" : "dashboard_types.gen"))}";`,
               "export type WholeDashboard = dashboard.Dashboard;"];
const types = { WholeDashboard: "dashboard" };
for (const [panel, name] of Object.entries(PANELS)) {
  lines.push(`import type * as ${panel} from "${resolve(place(panel, name))}";`);
  lines.push(`export type ${panel}Options = ${panel}.Options;`);
  types[`${panel}Options`] = `${panel}.options`;
  // Not every kind of panel has settings of its own for single fields.
  if (!["stat", "bargauge"].includes(panel)) {
    lines.push(`export type ${panel}Fields = ${panel}.FieldConfig;`);
    types[`${panel}Fields`] = `${panel}.custom`;
  }
}
const source = resolve(from, "types-of-ours.ts");
writeFileSync(source, lines.join("\n"));

const config = { ...DEFAULT_CONFIG, skipTypeCheck: true, encodeRefs: false, additionalProperties: false };
const program = ts.createProgram([source], { noEmit: true, skipLibCheck: true, moduleResolution: ts.ModuleResolutionKind.Node10,
                                             target: ts.ScriptTarget.ES2022, strict: true });
mkdirSync(to, { recursive: true });
for (const [type, file] of Object.entries(types)) {
  // A generator of its own for each: the same name means different types in different kinds of panels.
  const generator = new SchemaGenerator(program, createParser(program, config), createFormatter(config), config);
  writeFileSync(join(to, `${file}.json`), JSON.stringify(generator.createSchema(type)));
}

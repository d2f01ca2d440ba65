// Compiles the examples of docs/client.md against the built package.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { expect, test } from "vitest";

/** Declarations for names that the examples use without defining them. */
const GIVEN = {
  supabase: "declare const supabase: import('@supabase/supabase-js').SupabaseClient;",
  queryClient: "declare const queryClient: import('@tanstack/react-query').QueryClient;",
  id: "declare const id: string;",
  session: "declare const session: import('@usher/client').Session;",
  message: "declare const message: import('@usher/client').Message;",
  playSound: "declare function playSound(): void;",
  wait: "declare function wait(ms: number | null): void;",
  SUPABASE_URL: "declare const SUPABASE_URL: string, SUPABASE_KEY: string;",
  send: "declare const send: import('@usher/client/react').UseChat['send'];",
  body: "declare const body: string;",
  useChat: 'import { useChat } from "@usher/client/react";',
  useSession: 'import { useSession } from "@usher/client/react";',
  useTally: 'import { useTally } from "@usher/client/react";',
  useViewers: 'import { useViewers } from "@usher/client/react";',
  UsherProvider: 'import { UsherProvider } from "@usher/client/react";',
};

test("each example of docs/client.md compiles", () => {
  const page = readFileSync(new URL("../../docs/client.md", import.meta.url), "utf8");
  const [own = "", comparison = ""] = page.split("## From Supabase Realtime");
  // In the comparison, the first example of each pair is for another library.
  const examples = [...examplesOf(own), ...examplesOf(comparison).filter((_, index) => index % 2 === 1)];
  expect(examples.length).toBeGreaterThan(8);
  const files = examples.map((code, index) => [fileURLToPath(new URL(`example-${index}.tsx`, import.meta.url)), code]);
  expect(problemsOf(new Map(files.map(([path = "", code = ""]) => [path, completed(code)])))).toEqual([]);
}, 120_000);

function examplesOf(text: string): string[] {
  return [...text.matchAll(/^```tsx?\n(.*?)^```$/gms)].map(([, code]) => code ?? "");
}

function completed(code: string): string {
  const missing = Object.entries(GIVEN).filter(([name]) => !new RegExp(`(const |import .*)\\b${name}\\b`).test(code));
  // Completes an example that consists of an opening tag only.
  const whole = code.startsWith("<UsherProvider") ? `export default ${code}</UsherProvider>;` : code;
  return `${missing.map(([, line]) => line).join("")}${whole}\nexport {};`;
}

function problemsOf(files: ReadonlyMap<string, string>): string[] {
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    jsx: ts.JsxEmit.ReactJSX,
    lib: ["lib.es2023.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
    types: ["react"],
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile } = host;
  host.fileExists = (path) => files.has(path) || fileExists(path);
  host.getSourceFile = (path, version, ...rest) => {
    const text = files.get(path);
    return text === undefined ? getSourceFile(path, version, ...rest) : ts.createSourceFile(path, text, version);
  };
  const program = ts.createProgram([...files.keys()], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ messageText, file, start }) => {
    const line = file && start !== undefined ? file.getLineAndCharacterOfPosition(start).line : 0;
    return `${ts.flattenDiagnosticMessageText(messageText, " ")} | ${file?.text.split("\n")[line]}`;
  });
}

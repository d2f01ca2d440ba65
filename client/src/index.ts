/** Types of the tables that Usher brings, as `createClient<Database>()` of supabase-js takes them. */
export type { Database, Json, Tables, TablesInsert, TablesUpdate } from "./database.types.ts";

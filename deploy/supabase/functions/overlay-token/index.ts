// Runs the Edge Function with the secrets of its environment.

import { answer, type Settings } from "./overlay_token.ts";

function required(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const settings: Settings = {
  // The platform sets these two.
  supabaseUrl: required("SUPABASE_URL"),
  serviceKey: required("SUPABASE_SERVICE_ROLE_KEY"),
  // Set with `supabase secrets set USHER_JWT_SECRET=…`: the secret with which the gateway verifies tokens.
  jwtSecret: required("USHER_JWT_SECRET"),
  allowedOrigin: Deno.env.get("USHER_OVERLAY_ORIGIN") ?? "*",
};

Deno.serve((request) => answer(request, settings));

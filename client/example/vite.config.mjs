import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // The linked package in the parent folder has its own React. This makes it use the React of the app.
  resolve: { dedupe: ["react", "react-dom"] },
});

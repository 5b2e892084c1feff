// The form to log in. A link on another site leads here even if this browser has a session, because
// its cookie is not sent along; requests of this page do send it.

import { session } from "./server.js";

if ((await session()).name) location.replace("/");

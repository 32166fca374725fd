// Shows docs/openapi.yaml in Swagger UI. Each request goes through the console, which adds the person's token.

const person = document.getElementById("person");
const problem = document.getElementById("problem");

if (window.SwaggerUIBundle) {
  window.SwaggerUIBundle({
    url: "/api/openapi.yaml",
    dom_id: "#reference",
    deepLinking: false,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
    persistAuthorization: false,
    requestInterceptor: (request) => {
      const address = new URL(request.url, location.href);
      if (address.pathname === "/api/openapi.yaml") return request;
      // The document's servers end with the gateway's stage, which the console adds by itself.
      const path = address.pathname.replace(/^\/v1(?=\/)/, "");
      request.url = `${location.origin}/as/${person.value}${path}${address.search}`;
      return request;
    },
  });
} else {
  problem.hidden = false;
  problem.textContent = "The API viewer is not installed. make console installs it; start the console with that command.";
}

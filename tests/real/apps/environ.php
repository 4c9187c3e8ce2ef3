<?php
// Answers every request with the variables that PHP has made of its headers, as JSON.
$is_header = fn($name) => str_starts_with($name, 'HTTP_');
$body = json_encode(array_filter($_SERVER, $is_header, ARRAY_FILTER_USE_KEY), JSON_FORCE_OBJECT);
header('Content-Length: ' . strlen($body));
echo $body;
